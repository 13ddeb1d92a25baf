"""A supernet's layers as a graph of costs, read off the built supernet."""
