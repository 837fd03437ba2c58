"""Networks: layers, the loop that trains them, inference, losses, devices."""
