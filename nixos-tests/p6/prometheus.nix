# Prometheus and the node exporter, for eyes inside the machine only: both would listen on every address.
let
  target = job: port: {
    job_name = job;
    static_configs = [ { targets = [ "127.0.0.1:${toString port}" ]; } ];
  };
in
{
  services.prometheus = {
    enable = true;
    listenAddress = "127.0.0.1";
    port = 9090;
    retentionTime = "2d";
    globalConfig.scrape_interval = "15s";
    exporters.node = {
      enable = true;
      listenAddress = "127.0.0.1";
      port = 9100;
    };
    scrapeConfigs = [
      (target "prometheus" 9090)
      (target "node" 9100)
      (target "synapse" 9092 // { metrics_path = "/_synapse/metrics"; })
    ];
  };
}
