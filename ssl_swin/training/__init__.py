"""Lightning side of the house: modules, data module, callbacks, loggers."""
