"""The configurations of the jobs, as Hydra reads them: `pkg://ssl_swin.conf`."""
