"""The tuner: candidates that the estimate cannot tell apart are timed on the device."""
