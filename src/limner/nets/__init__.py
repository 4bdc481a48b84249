"""Architectures. They know nothing of training and import nothing else of limner.

Every net is called as `net(x, y)`: `y` (B,) int64 class indices or None. A net with `classes == 0` ignores
`y`; a conditional one needs it. Encoders and decoders say what a code looks like: `z` (how many numbers)
and `code_shape` (without the batch). Images are (B,C,H,W) in [-1,1]; a discriminator returns (B,) logits.
"""
