"""Tasks on a trained model and the user's own pictures; models are known only by what they can do."""
