# In: SSH and HTTPS. Out: anything; whoever runs the machine decides what its network reaches.
#
# A ruleset of its own, because each door is counted by name, which NixOS's firewall does not do.
{ config, ... }:
{
  networking.firewall.enable = false;
  networking.nftables.enable = true;
  networking.nftables.tables.rave = {
    family = "inet";
    content = ''
      counter in_established {}
      counter in_loopback {}
      counter in_ssh {}
      counter in_https {}
      counter in_icmp {}
      counter in_invalid {}
      counter in_dropped {}
      counter forward_dropped {}

      chain input {
        type filter hook input priority filter; policy drop;
        iifname "lo" counter name in_loopback accept
        ct state established,related counter name in_established accept
        ct state invalid counter name in_invalid drop
        tcp dport 22 counter name in_ssh accept
        tcp dport ${toString config.rave.port} counter name in_https accept
        icmp type echo-request counter name in_icmp accept
        icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } counter name in_icmp accept
        counter name in_dropped drop
      }

      chain forward {
        type filter hook forward priority filter; policy drop;
        counter name forward_dropped drop
      }
    '';
  };
}
