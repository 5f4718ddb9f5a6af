"""What hidden states hold: probes, prediction by depth, attention paid."""
