# RAVE P6: one module per concern.
{
  imports = [
    ./options.nix
    ./base.nix
    ./boot.nix
    ./ssh.nix
    ./firewall.nix
    ./secrets.nix
    ./tls.nix
    ./nginx.nix
    ./postgresql.nix
    ./gitlab.nix
    ./runner.nix
    ./synapse.nix
    ./element.nix
    ./grafana.nix
    ./prometheus.nix
    ./bridge.nix
    ./sandbox.nix
    ./budgets.nix
    ./profile.nix
  ];
}
