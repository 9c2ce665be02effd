# The headers of a proxied location. nginx inherits none of them into a location that sets one of its own, so each location has all.
# $http_host would do as well, but NixOS's check of nginx.conf (gixy) takes it for host spoofing.
''
  proxy_set_header Host $host:$server_port;
  proxy_set_header X-Forwarded-Host $host:$server_port;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto https;
  proxy_set_header X-Forwarded-Ssl on;
''
