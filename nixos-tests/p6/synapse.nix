# Synapse: users come through GitLab only, and no other server exists.
{ config, ... }:
let
  cfg = config.rave;
  secret = name: "/etc/rave/secrets/${name}";
  proxy = import ./proxy.nix;
  upstream = "http://127.0.0.1:8008";
  # The request goes on byte for byte: no path in proxy_pass.
  passed = {
    proxyPass = upstream;
    extraConfig = proxy;
  };
in
{
  rave.secrets.owners = {
    synapse-macaroon = "matrix-synapse";
    synapse-form = "matrix-synapse";
    synapse-registration = "matrix-synapse";
    oidc-synapse = "matrix-synapse";
  };

  services.matrix-synapse = {
    enable = true;
    settings = {
      server_name = cfg.host;
      # Without a path: with /matrix/ behind a proxy that takes it off, signing in redirects to itself for ever.
      public_baseurl = "${cfg.origin}/";
      listeners = [
        {
          port = 8008;
          bind_addresses = [ "127.0.0.1" ];
          type = "http";
          tls = false;
          x_forwarded = true;
          resources = [
            {
              names = [ "client" ];
              compress = false;
            }
          ];
        }
        {
          port = 9092;
          bind_addresses = [ "127.0.0.1" ];
          type = "metrics";
          tls = false;
          resources = [ ];
        }
      ];
      enable_metrics = true;
      # No host: the socket.
      database.args = {
        database = "synapse";
        user = "synapse";
        cp_min = 2;
        cp_max = 5;
      };

      macaroon_secret_key_path = secret "synapse-macaroon";
      form_secret_path = secret "synapse-form";
      # The administration interface that needs it is served inside the machine only.
      registration_shared_secret_path = secret "synapse-registration";

      enable_registration = false;
      allow_guest_access = false;
      # Left out, it would be on.
      password_config.enabled = false;
      # Nothing is fetched from GitLab at start, which may take minutes longer than Synapse does.
      oidc_providers = [
        {
          idp_id = "gitlab";
          idp_name = "GitLab";
          idp_brand = "gitlab";
          issuer = "${cfg.origin}/gitlab";
          discover = false;
          authorization_endpoint = "${cfg.origin}/gitlab/oauth/authorize";
          token_endpoint = "${cfg.origin}/gitlab/oauth/token";
          userinfo_endpoint = "${cfg.origin}/gitlab/oauth/userinfo";
          jwks_uri = "${cfg.origin}/gitlab/oauth/discovery/keys";
          client_id = "synapse";
          client_secret_path = secret "oidc-synapse";
          client_auth_method = "client_secret_basic";
          scopes = [
            "openid"
            "profile"
            "email"
          ];
          user_profile_method = "userinfo_endpoint";
          pkce_method = "always";
          allow_existing_users = false;
          user_mapping_provider.config = {
            localpart_template = "{{ user.preferred_username }}";
            display_name_template = "{{ user.name }}";
          };
        }
      ];
      sso.client_whitelist = [ "${cfg.origin}/element/" ];

      # No listener serves federation, no server is asked, none is trusted.
      federation_domain_whitelist = [ ];
      trusted_key_servers = [ ];
      suppress_key_server_warning = true;
      allow_public_rooms_over_federation = false;
      allow_public_rooms_without_auth = false;

      max_upload_size = "10M";
      url_preview_enabled = false;
      report_stats = false;
      app_service_config_files = [ config.sops.templates."synapse-appservice.yaml".path ];
    };
  };

  systemd.services.matrix-synapse = {
    requires = [ "rave-tls.service" ];
    after = [ "rave-tls.service" ];
    # It talks TLS to this machine only, and has no setting for a CA.
    environment.SSL_CERT_FILE = "/etc/rave/ca.crt";
  };

  services.nginx.virtualHosts.${cfg.host}.locations = {
    "/_matrix/" = passed;
    "/_synapse/client/" = passed;
    "= /health" = passed;
    # The same under /matrix, with the prefix taken off, and nothing more than the same.
    "/matrix/_matrix/" = passed // {
      proxyPass = "${upstream}/_matrix/";
    };
    "/matrix/_synapse/client/" = passed // {
      proxyPass = "${upstream}/_synapse/client/";
    };
    "= /matrix/health" = passed // {
      proxyPass = "${upstream}/health";
    };
  };
}
