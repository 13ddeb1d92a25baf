"""Configs: finding the shipped ones, and adapting one to images of one's own. Imports nothing slow."""

from pss_razor.config.image_folder import resize_images, set_epochs, use_image_folder
from pss_razor.config.shipped import config_folder, find_config, list_configs

__all__ = ["config_folder", "find_config", "list_configs", "resize_images", "set_epochs", "use_image_folder"]
