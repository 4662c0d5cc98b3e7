"""An activation store → feature dictionaries."""
