"""The gain reference of a camera: how it is used is found out from movies, asked of a person, and kept in the journal."""
