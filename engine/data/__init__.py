"""Reading, converting, rendering and measuring the rows a model is tuned on."""
