"""Gates that are described in a few words, a ``GateSpec``, where no family knows them."""
