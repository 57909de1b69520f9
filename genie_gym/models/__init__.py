"""The Genie stack: tokenizer, latent actions, dynamics, reward, and the world they make."""
