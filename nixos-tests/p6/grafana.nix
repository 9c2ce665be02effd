# Grafana below /grafana/, entered through GitLab only.
{ config, ... }:
let
  cfg = config.rave;
  file = name: "$__file{/etc/rave/secrets/${name}}";
in
{
  rave.secrets.owners = {
    grafana-secret-key = "grafana";
    grafana-admin-password = "grafana";
    oidc-grafana = "grafana";
  };

  services.grafana = {
    enable = true;
    settings = {
      server = {
        http_addr = "127.0.0.1";
        http_port = 3000;
        domain = cfg.host;
        root_url = "${cfg.origin}/grafana/";
        serve_from_sub_path = true;
      };
      database = {
        type = "postgres";
        host = "/run/postgresql";
        name = "grafana";
        user = "grafana";
      };
      security = {
        secret_key = file "grafana-secret-key";
        admin_user = "admin";
        admin_password = file "grafana-admin-password";
        cookie_secure = true;
        disable_gravatar = true;
      };
      users.allow_sign_up = false;
      auth.disable_login_form = true;
      "auth.basic".enabled = false;
      "auth.anonymous".enabled = false;
      "auth.gitlab" = {
        enabled = true;
        allow_sign_up = true;
        client_id = "grafana";
        client_secret = file "oidc-grafana";
        scopes = "openid email profile";
        auth_url = "${cfg.origin}/gitlab/oauth/authorize";
        token_url = "${cfg.origin}/gitlab/oauth/token";
        api_url = "${cfg.origin}/gitlab/api/v4";
        allowed_groups = "rave";
        use_pkce = true;
        tls_client_ca = "/etc/rave/ca.crt";
      };
      # There is no way out.
      analytics = {
        reporting_enabled = false;
        check_for_updates = false;
        check_for_plugin_updates = false;
      };
    };
    provision = {
      enable = true;
      datasources.settings.datasources = [
        {
          name = "Prometheus";
          type = "prometheus";
          access = "proxy";
          url = "http://127.0.0.1:9090";
          isDefault = true;
        }
      ];
    };
  };

  systemd.services.grafana = {
    requires = [ "rave-tls.service" ];
    after = [ "rave-tls.service" ];
  };

  # The prefix is kept: Grafana answers one that was taken off with a redirect to itself.
  services.nginx.virtualHosts.${cfg.host}.locations."/grafana/" = {
    proxyPass = "http://127.0.0.1:3000";
    proxyWebsockets = true;
    extraConfig = import ./proxy.nix;
  };
}
