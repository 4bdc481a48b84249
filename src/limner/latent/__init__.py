"""Tools for latent codes: maps, walks and nearest neighbours."""
