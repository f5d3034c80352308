"""Lightning side of the house (L2): modules, data module, callbacks, loggers."""
