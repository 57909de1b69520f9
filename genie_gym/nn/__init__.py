"""Parts that know nothing of Genie: patches, attention, the ST-transformer, quantizers, masking."""
