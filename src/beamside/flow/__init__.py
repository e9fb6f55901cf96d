"""The session loop: scheduling, item states, keys."""
