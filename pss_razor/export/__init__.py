"""Networks for others: chosen, made static, written in several formats, compared with the supernet and measured."""
