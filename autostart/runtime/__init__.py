"""What runs a service: the protocol in `base`, and one module or package for each way of running."""
