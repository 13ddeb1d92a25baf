from exported_networks import (  # noqa: F401
    _bundle_bytes,
    _supernet_subnets,
    bundle_file,
    small_model,
    small_net,
    supernet_subnets,
)
