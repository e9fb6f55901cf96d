"""The job types, one file each: parameters, inputs, outputs, metrics, process()."""
