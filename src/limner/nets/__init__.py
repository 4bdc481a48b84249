"""Architectures. They import no other part of limner; `limner.nets.protocols` says what models expect of them.

Encoders, decoders, generators and discriminators are called as `net(x, y)`, where `y` are class indices (B,) int64 or
None: a conditional net needs them, a net with ``classes == 0`` ignores them. Image-to-image nets are called as
`net(x)`. Images are (B,C,H,W) in [-1,1].
"""
