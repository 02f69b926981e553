# Makes the plan of a boot from the raw texts $meta, $network and $user: one line per thing to do,
# a section's name and fields parted by US (\u001f). One run does it all, since jq takes long to start.

# Control characters go, so that neither a line nor a field can be forged. What may hold any
# character, contents and scripts, travels in base64.
def record: map(if . == null then "" else tostring | gsub("[[:cntrl:]]"; "") end) | join("\u001f");

# A section that meets nonsense ends, with a line in the log; the others go on.
def section($name; fields): try (fields | [$name] + . | record) catch (["log", "\($name): \(.)"] | record);

# Where cloud-init takes a list or a single value.
def list: if . == null then [] elif type == "array" then . else [.] end;

# Where cloud-init takes a list or a text with commas.
def words: if type == "string" then split(",") else list end | map(tostring | gsub("^\\s+|\\s+$"; ""));

def object: try fromjson catch {} | if type == "object" then . else {} end;

{
  meta: $meta | object,
  network: $network | object | (.network // .),
  user: (if $user | startswith("#cloud-config") then $user | sub("^[^\n]*\n?"; "") | object else {} end)
} as $seed
| $seed.user as $config
| [$config.users | list[] | objects] as $users

# [message]
| def complaints:
    ( {"meta-data": [$meta, $seed.meta], "network-config": [$network, $seed.network]}
      | to_entries[] | select(.value[0] != "" and .value[1] == {}) | ["\(.key) holds nothing to use"] ),
    ( select($user | startswith("#cloud-config")) | select($config == {}) | ["user-data holds nothing to use"] ),
    ( select($user | test("^(#!|#cloud-config|$)") | not) | ["user-data is neither #cloud-config nor a script"] );

  # [key]
  def ignored:
    $config | keys - ["bootcmd", "chpasswd", "disable_root", "fqdn", "hostname", "manage_etc_hosts", "runcmd",
      "ssh_authorized_keys", "ssh_pwauth", "users", "write_files"] | .[] | [.];

  # [name, fully qualified name or ""]
  def hostname:
    ($config.hostname // $config.fqdn // $seed.meta["local-hostname"] // "" | tostring) as $name
    | [($name | split(".")[0]), ($config.fqdn // ($name | select(contains("."))))];

  # [mac, kernel's name, wanted name, dhcp4, mtu, addresses, routes "to,via,metric", name servers, search]
  def nics:
    def route: [.to, .via, .metric] | map(. // "" | tostring) | join(",");
    $seed.network.ethernets // {} | to_entries[] | .key as $key | .value
    | [ (.match.macaddress // "" | ascii_downcase),
        (.match.name // if .match then "" else $key end),
        .["set-name"],
        (.dhcp4 | . == true or . == "true" or . == "yes"),
        .mtu,
        (.addresses | list | map(if type == "object" then keys[] else . end) | join(" ")),
        ([(.gateway4, .gateway6 | strings | {to: "default", via: .}), (.routes | list[])] | map(route) | join(" ")),
        (.nameservers.addresses | list | join(" ")),
        (.nameservers.search | list | join(" ")) ];

  # [name, gecos, shell, home, uid, groups "a,b", has sudo]; a ":" would end a field of /etc/passwd
  def users:
    $users[]
    | [ .name,
        (.gecos // "" | tostring | gsub("[:,]"; " ")),
        .shell,
        .homedir,
        .uid,
        (.groups | words | join(",")),
        (.sudo // false) != false ];

  # [name, "hash" or "text", password], in cloud-init's order: a user is locked unless lock_passwd is
  # false, and chpasswd comes afterwards and opens what was locked.
  def passwords:
    def kind: if test("^\\$(1|2a|2y|5|6|y)(\\$[^$]+){2,}$") then "hash" else "text" end;
    ( $users[]
      | if .lock_passwd != false then [.name, "hash", "!"]
        elif .plain_text_passwd then [.name, "text", .plain_text_passwd]
        else [.name, "hash", .hashed_passwd // .passwd // "!"] end ),
    ( $config.chpasswd | objects
      | ( .users | list[] | objects | select(.password and .type != "RANDOM")
          | [.name, (if .type == "text" then "text" else "hash" end), .password] ),
        ( .list | if type == "string" then split("\n") else list end
          | .[] | strings | capture("^(?<name>[^:]+):(?<password>.+)$")
          | [.name, (.password | kind), .password] ) );

  # [user, key]: those of nobody in particular are root's
  def keys_of_users:
    ( ( $users[] | .name as $name | .ssh_authorized_keys | list[] | [$name, .] ),
      ( $config.ssh_authorized_keys | list[] | ["root", .] ),
      ( $seed.meta["public-keys"] | .. | strings | ["root", .] ) )
    | .[0] as $name | .[1] | strings | split("\n")[] | select(test("\\S")) | [$name, .];

  def numbered_files: $config.write_files | list | map(objects) | to_entries[];

  # [number, path, owner, mode in octal, append, encoding]; a mode that is a number is what YAML made of 0644
  def files:
    def octal: if . < 8 then tostring else (. / 8 | floor | octal) + (. % 8 | tostring) end;
    numbered_files | [.key] + (.value
    | [ .path,
        .owner // "root:root",
        (.permissions // "0644" | if type == "number" then octal else tostring | ltrimstr("0o") end),
        .append // false,
        (.encoding // "" | tostring | ascii_downcase) ]);

  # [number, content]
  def contents: numbered_files | [.key, (.value.content // "" | tostring | @base64)];

  # [shell script]: texts as they are, lists quoted word by word
  def script: [list[] | if type == "array" then map(tostring) | @sh else strings end | . + "\n"]
    | select(. != []) | [add | @base64];

  section("log"; complaints),
  section("ignored"; ignored),
  section("instance"; [$seed.meta["instance-id"] // "none"]),
  section("hostname"; hostname),
  section("nic"; nics),
  section("user"; users),
  section("password"; passwords),
  section("key"; keys_of_users),
  section("file"; files),
  section("content"; contents),
  section("bootcmd"; $config.bootcmd | script),
  section("runcmd"; $config.runcmd | script),
  section("flag"; "disable_root", "ssh_pwauth" | select($config[.] == true) | [.]),
  section("flag"; select($config.manage_etc_hosts == false) | ["keep_etc_hosts"])
