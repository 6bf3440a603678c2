"""Alarms: rules that people write, evaluated as UVEs change, and what is told of them."""
