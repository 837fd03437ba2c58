"""What a row is to the river and to a model: labelled rows, and a room for each kind of input."""
