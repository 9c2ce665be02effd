# /etc/rave/profile.json: what this machine says about itself, taken from the configuration that makes it.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (config) rave services;
  # The name an implementation is known by, and the version of the package that runs.
  real = name: package: {
    implementation = "${name} ${lib.getVersion package}";
    stand_in = false;
  };
  capabilities = {
    ssh = lib.optionalAttrs services.openssh.enable (real "openssh" services.openssh.package);
    nftables = lib.optionalAttrs config.networking.nftables.enable (real "nftables" pkgs.nftables);
    nginx = lib.optionalAttrs services.nginx.enable (real "nginx" services.nginx.package);
    postgresql = lib.optionalAttrs services.postgresql.enable (
      real "postgresql" services.postgresql.package
    );
    gitlab = lib.optionalAttrs services.gitlab.enable (
      real "gitlab-ce" services.gitlab.packages.gitlab
    );
    oidc = lib.optionalAttrs services.gitlab.enable (real "gitlab-ce" services.gitlab.packages.gitlab);
    matrix = lib.optionalAttrs services.matrix-synapse.enable (
      real "synapse" services.matrix-synapse.package
    );
    element = real "element-web" pkgs.element-web;
    grafana = lib.optionalAttrs services.grafana.enable (real "grafana" services.grafana.package);
    prometheus = lib.optionalAttrs services.prometheus.enable (
      real "prometheus" services.prometheus.package
    );
    node_exporter = lib.optionalAttrs services.prometheus.exporters.node.enable (
      real "node_exporter" pkgs.prometheus-node-exporter
    );
    bridge = real "rave-bridge" rave.packages.bridge;
    runner = lib.optionalAttrs services.gitlab-runner.enable (
      real "gitlab-runner" services.gitlab-runner.package
    );
    sandbox = lib.optionalAttrs rave.fullPipe (real "rave-sandbox" rave.packages.sandbox);
  };
in
{
  environment.etc."rave/profile.json".text = builtins.toJSON {
    schema = 1;
    name = "P6-production";
    inherit (rave) version origin;
    ca = "/etc/rave/ca.crt";
    capabilities = lib.filterAttrs (_: implementation: implementation != { }) capabilities;
  };
}
