# P6's modules one by one, each in a machine of its own that NixOS's test driver boots: quick, and to the point when one is wrong.
# The image as a whole is the business of acceptance.nix.
{ pkgs, sops-nix }:
let
  test =
    name: module:
    pkgs.testers.runNixOSTest {
      inherit name;
      nodes.machine = {
        imports = [
          ../p6/options.nix
          sops-nix.nixosModules.sops
        ]
        ++ module.imports;
        environment.systemPackages = module.tools or [ ];
      };
      inherit (module) testScript;
    };
in
{
  module-ssh = test "rave-ssh" {
    imports = [ ../p6/ssh.nix ];
    testScript = ''
      machine.wait_for_unit("sshd.service")
      settings = machine.succeed("sshd -T -C user=root,host=h,addr=10.0.2.2")
      for line in [
          "authenticationmethods publickey",
          "disableforwarding yes",
          "kbdinteractiveauthentication no",
          "maxauthtries 2",
          "maxsessions 2",
          "passwordauthentication no",
          "permitrootlogin without-password",
      ]:
          assert line in settings.splitlines(), line
      machine.succeed("test -s /etc/ssh/ssh_host_ed25519_key && ! test -e /etc/ssh/ssh_host_rsa_key")
      weak = machine.fail("ssh -o BatchMode=yes -o KexAlgorithms=ecdh-sha2-nistp256 root@127.0.0.1 true 2>&1")
      assert "no matching key exchange method found" in weak, weak
    '';
  };

  module-firewall = test "rave-firewall" {
    imports = [ ../p6/firewall.nix ];
    testScript = ''
      machine.wait_for_unit("nftables.service")
      rules = machine.succeed("nft list table inet rave")
      assert rules.count("policy drop;") == 2
      machine.succeed("nft list counter inet rave in_dropped")
      machine.succeed("nft list chain inet rave input | grep -q 'tcp dport 3002'")
    '';
  };

  module-nginx = test "rave-nginx" {
    imports = [
      ../p6/tls.nix
      ../p6/nginx.nix
      { networking.hosts."127.0.0.1" = [ "rave.local" ]; }
    ];
    testScript = ''
      machine.wait_for_unit("nginx.service")
      machine.wait_for_open_port(3002)
      page = machine.succeed("curl -fsS -D - --cacert /etc/rave/ca.crt https://rave.local:3002/")
      for header in ["Strict-Transport-Security", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"]:
          assert header.lower() in page.lower(), header
      code = machine.succeed("curl -sS -o /dev/null -w '%{http_code}' --cacert /etc/rave/ca.crt https://rave.local:3002/nowhere")
      assert code == "404", code
      machine.succeed("curl -fsS https://rave.local:3002/")
      refused = machine.fail("curl -sS --cacert ${pkgs.cacert}/etc/ssl/certs/ca-bundle.crt https://rave.local:3002/ 2>&1")
      assert "certificate" in refused, refused
      assert machine.succeed("stat -c '%a %U' /etc/rave/secrets/tls.key").strip() == "400 nginx"
      machine.fail("grep -r 'PRIVATE KEY' /etc/rave/ca.crt /etc/rave/tls.crt")
    '';
  };

  module-secrets = test "rave-secrets" {
    imports = [
      ../p6/secrets.nix
      {
        rave.secrets.owners.bridge-as-token = "root";
        virtualisation.credentials."rave.age-key".source = "${../secrets/credentials}/rave.age-key";
        boot.initrd.availableKernelModules = [
          "dmi_sysfs"
          "qemu_fw_cfg"
        ];
      }
    ];
    testScript = ''
      machine.wait_for_unit("sops-install-secrets.service")
      assert "sysinit.target" in machine.succeed("systemctl show --value --property=Before sops-install-secrets.service").split()
      assert machine.succeed("stat -Lc '%a %U' /etc/rave/secrets/bridge-as-token").strip() == "400 root"
      assert len(machine.succeed("cat /etc/rave/secrets/bridge-as-token").strip()) >= 32
      assert machine.succeed("findmnt -no FSTYPE -T /run/secrets.d").strip() in ["ramfs", "tmpfs"]
      machine.fail("grep -rqF \"$(cat /etc/rave/secrets/bridge-as-token)\" /nix/store/*-test.yaml /etc/static")
    '';
  };

  module-synapse = test "rave-synapse" {
    imports = [
      ../p6/postgresql.nix
      (
        { lib, pkgs, ... }:
        {
          # Synapse on the database that P6 makes, with none of the services around it.
          systemd.services.rave-databases.enable = false;
          users.users.grafana = {
            isSystemUser = true;
            group = "grafana";
          };
          users.groups.grafana = { };
          services.matrix-synapse = {
            enable = true;
            settings = {
              server_name = "rave.local";
              database.args = {
                database = "synapse";
                user = "synapse";
              };
            };
          };
        }
      )
    ];
    tools = [ pkgs.curl ];
    testScript = ''
      machine.wait_for_unit("postgresql.target")
      machine.wait_for_unit("matrix-synapse.service")
      machine.wait_until_succeeds("curl -fsS http://127.0.0.1:8008/health")
      query = "select datcollate, datctype from pg_database where datname = 'synapse'"
      assert machine.succeed(f"sudo -u postgres psql -XAtqc \"{query}\"").strip() == "C|C"
      assert machine.succeed("sudo -u postgres psql -XAtqc 'show listen_addresses'").strip() == ""
      refused = machine.fail("sudo -u grafana psql -d synapse -U synapse -c 'select 1' 2>&1")
      assert "Peer authentication failed" in refused, refused
    '';
  };
}
