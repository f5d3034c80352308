"""The one place for signals: a run that is told to stop does so where its state is whole."""
