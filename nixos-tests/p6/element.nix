# Element, static files below /element/.
{ config, pkgs, ... }:
let
  element = pkgs.element-web.override {
    conf = {
      default_server_config."m.homeserver" = {
        base_url = config.rave.origin;
        server_name = config.rave.host;
      };
      disable_custom_urls = true;
      disable_guests = true;
      disable_3pid_login = true;
      brand = "RAVE";
    };
  };
in
{
  services.nginx.virtualHosts.${config.rave.host}.locations = {
    "/element/" = {
      alias = "${element}/";
      index = "index.html";
    };
    "= /element".return = "301 ${config.rave.origin}/element/";
  };
}
