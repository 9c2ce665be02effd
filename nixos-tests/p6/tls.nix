# A CA of this machine's own and the certificate it signs, made at the first boot. The CA's key never reaches the disk.
{
  config,
  lib,
  pkgs,
  ...
}:
{
  # Nobody else is spoken TLS with, so nobody else is trusted.
  environment.etc."ssl/certs/ca-certificates.crt".source = lib.mkForce "/etc/rave/ca.crt";

  systemd.services.rave-tls = {
    description = "CA and certificate of this machine, made at its first boot";
    wantedBy = [ "multi-user.target" ];
    # ca.crt is written last: while it is missing, everything is made again.
    unitConfig.ConditionPathExists = "!/etc/rave/ca.crt";
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      UMask = "0077";
      PrivateTmp = true;
      NoNewPrivileges = true;
    };
    path = [ pkgs.openssl ];
    script = ''
      cd "$(mktemp -d)"
      start=$(date -u -d '-1 hour' +%Y%m%d%H%M%SZ)
      end=$(date -u -d '+2 years' +%Y%m%d%H%M%SZ)
      make() {
        openssl req -quiet -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -not_before "$start" -not_after "$end" "$@"
      }
      make -keyout ca.key -out ca.crt -subj '/O=RAVE/CN=RAVE machine CA' \
        -addext 'basicConstraints=critical,CA:TRUE,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign'
      make -keyout tls.key -out tls.crt -CA ca.crt -CAkey ca.key -subj '/O=RAVE/CN=${config.rave.host}' \
        -addext 'basicConstraints=critical,CA:FALSE' -addext 'keyUsage=critical,digitalSignature' \
        -addext 'extendedKeyUsage=serverAuth' -addext 'subjectAltName=DNS:${config.rave.host},DNS:localhost,IP:127.0.0.1'
      rm ca.key
      install -d -m 0751 /etc/rave/secrets
      install -m 0400 -o ${config.services.nginx.user} -g ${config.services.nginx.group} tls.key /etc/rave/secrets/tls.key
      install -m 0444 tls.crt /etc/rave/tls.crt
      install -m 0444 ca.crt /etc/rave/.ca.crt
      sync -f /etc/rave
      mv /etc/rave/.ca.crt /etc/rave/ca.crt
    '';
  };
}
