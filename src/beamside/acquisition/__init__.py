"""Raw data in: scanning, readiness, verified transfer, manifest, compression, gain preparation, metadata of EPU."""
