# sshd: keys only, two accounts, no forwarding of any kind, few sessions.
#
# Who may come in as root is told by the credential ssh.authorized_keys.root, which NixOS writes to /root/.ssh at boot.
# GitLab's repositories are reached over HTTPS only.
{
  services.openssh = {
    enable = true;
    # The credential's file lies in root's home.
    authorizedKeysInHomedir = true;
    hostKeys = [
      {
        type = "ed25519";
        path = "/etc/ssh/ssh_host_ed25519_key";
      }
    ];
    settings = {
      AllowUsers = [
        "root"
        "agent"
      ];
      PermitRootLogin = "prohibit-password";
      AuthenticationMethods = "publickey";
      PasswordAuthentication = false;
      KbdInteractiveAuthentication = false;

      DisableForwarding = true;
      AllowTcpForwarding = false;
      AllowStreamLocalForwarding = false;
      AllowAgentForwarding = false;
      X11Forwarding = false;
      PermitTunnel = false;
      GatewayPorts = "no";

      MaxAuthTries = 2;
      MaxSessions = 2;
      MaxStartups = "2:50:10";
      LoginGraceTime = 60;
      ClientAliveInterval = 60;
      ClientAliveCountMax = 3;
      # All clients may come from one address, that of a user network: a penalty for one would lock out everybody.
      PerSourcePenalties = false;

      KexAlgorithms = [
        "mlkem768x25519-sha256"
        "sntrup761x25519-sha512"
        "sntrup761x25519-sha512@openssh.com"
        "curve25519-sha256"
        "curve25519-sha256@libssh.org"
      ];
      HostKeyAlgorithms = "ssh-ed25519";
      PubkeyAcceptedAlgorithms = "ssh-ed25519,sk-ssh-ed25519@openssh.com";
      LogLevel = "VERBOSE";
    };
  };

  # It would open a second sshd on sockets of its own.
  systemd.generators.systemd-ssh-generator = "/dev/null";
}
