# The only door from outside besides SSH: TLS on one port. Each service's module adds its own locations.
{ config, lib, ... }:
{
  services.nginx = {
    enable = true;
    # It would set Host without the port, which Synapse and GitLab need.
    recommendedProxySettings = false;
    serverTokens = false;
    sslProtocols = "TLSv1.2 TLSv1.3";
    sslCiphers = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305";
    # Pushes and uploads; Synapse has a limit of its own.
    clientMaxBodySize = "256m";
    commonHttpConfig = ''
      charset utf-8;
      access_log off;
      ssl_session_cache shared:tls:1m;
      ssl_session_tickets off;
      proxy_http_version 1.1;
      proxy_read_timeout 120s;

      # Inherited by every location, since none has an add_header of its own.
      add_header Strict-Transport-Security "max-age=31536000" always;
      add_header X-Content-Type-Options "nosniff" always;
      add_header X-Frame-Options "DENY" always;
      add_header Referrer-Policy "no-referrer" always;
      proxy_hide_header Strict-Transport-Security;
      proxy_hide_header X-Content-Type-Options;
      proxy_hide_header X-Frame-Options;
      proxy_hide_header Referrer-Policy;
    '';
    virtualHosts.${config.rave.host} = {
      default = true;
      onlySSL = true;
      listen = [
        {
          addr = "0.0.0.0";
          port = config.rave.port;
          ssl = true;
        }
        {
          addr = "[::]";
          port = config.rave.port;
          ssl = true;
        }
      ];
      sslCertificate = "/etc/rave/tls.crt";
      sslCertificateKey = "/etc/rave/secrets/tls.key";
      # What no module names does not exist: administration interfaces, metrics, dot files.
      locations."/".return = 404;
      locations."= /" = {
        root = ./www;
        tryFiles = "/index.html =404";
      };
    };
  };

  systemd.services.nginx = {
    requires = [ "rave-tls.service" ];
    after = [ "rave-tls.service" ];
    # The module lets it open ports below 1024. There is none.
    serviceConfig = {
      AmbientCapabilities = lib.mkForce "";
      CapabilityBoundingSet = lib.mkForce "";
    };
  };
}
