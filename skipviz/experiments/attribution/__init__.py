"""What a prediction or a gate's score depends on, by Captum."""
