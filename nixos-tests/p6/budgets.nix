# The most that each service may use: two cores and 8 GiB in safe mode, else four cores and 16 GiB. These are ceilings, not shares:
# together they are more than the machine has, and whoever grows beyond his own is stopped before he takes what others need.
{ config, lib, ... }:
let
  pick = safe: full: if config.rave.safeMode then safe else full;
  bound = memory: cpu: tasks: {
    serviceConfig = {
      MemoryMax = memory;
      CPUQuota = cpu;
      TasksMax = tasks;
    };
  };
in
{
  # All of GitLab's units are in one slice.
  systemd.slices.system-gitlab.sliceConfig = {
    MemoryMax = pick "5G" "9G";
    CPUQuota = pick "190%" "380%";
  };

  systemd.services = {
    matrix-synapse = bound (pick "1G" "2G") "100%" 256;
    postgresql = bound (pick "1G" "2G") "150%" 256;
    grafana = bound (pick "512M" "1G") "50%" 256;
    prometheus = bound (pick "384M" "1G") "50%" 128;
    prometheus-node-exporter = bound "64M" "20%" 64;
    nginx = bound "256M" "50%" 64;
    # With room for the systemctl it starts.
    rave-bridge = bound "128M" "50%" 64;
    "rave-agent@" = bound "32M" "20%" 16;
  }
  // lib.optionalAttrs config.rave.fullPipe {
    gitlab-runner = bound (pick "1G" "2G") "100%" 512;
    # With room for the small machine that shows whether KVM works.
    rave-sandbox = bound "512M" "100%" 128;
  };
}
