# Puts modules together as NixOS does, as far as P6's need it: imports, options, definitions that are merged, conditions and forced
# values. Options are those of the table and those that the modules declare themselves; a definition of anything else is an error
# that names it, and so is a value that is not of its option's type.
{
  lib,
  pkgs,
  table,
  modules,
}:
let
  inherit (builtins)
    attrNames
    concatLists
    concatStringsSep
    elemAt
    filter
    foldl'
    genList
    head
    isAttrs
    isFunction
    isList
    length
    map
    mapAttrs
    ;

  # A module as written, with everything it imports.
  collect =
    module:
    let
      written = if isFunction module || isAttrs module then module else import module;
      found = if isFunction written then written arguments else written;
      parts =
        if found ? options || found ? config then found.config or { } else removeAttrs found [ "imports" ];
    in
    [
      {
        file = if isFunction module || isAttrs module then "a module" else baseNameOf module;
        config = parts;
        options = found.options or { };
      }
    ]
    ++ concatLists (map collect (found.imports or [ ]));

  arguments = {
    inherit config lib pkgs;
    modulesPath = ./modules;
  };

  all = concatLists (map collect modules);

  # The modules' own options, as branches of the same tree.
  declared =
    path: options:
    if options._type or null == "option" then
      {
        option = concatStringsSep "." path;
        source = "nixos-tests/p6";
        inherit (options) type;
      }
      // (if options ? default then { inherit (options) default; } else { })
    else
      { children = mapAttrs (name: declared (path ++ [ name ])) options; };

  graft =
    left: right:
    left
    // right
    // (
      if left ? children || right ? children then
        {
          children =
            (left.children or { })
            // mapAttrs (
              name: branch: if left.children or { } ? ${name} then graft left.children.${name} branch else branch
            ) (right.children or { });
        }
      else
        { }
    );

  tree = foldl' graft table.tree (map (module: declared [ ] module.options) all);

  # A definition: where it stands, its value, whether it is forced. Conditions are taken apart only when the value is asked for, so that
  # they may ask for what the same module defines.
  definitions = map (module: {
    inherit (module) file;
    value = module.config;
    conditions = [ ];
    forced = false;
  }) all;

  opened =
    definition:
    let
      inherit (definition) value;
    in
    if isAttrs value && value._type or null == "if" then
      opened (
        definition
        // {
          value = value.content;
          conditions = definition.conditions ++ [ value.condition ];
        }
      )
    else if isAttrs value && value._type or null == "override" then
      opened (
        definition
        // {
          value = value.content;
          forced = true;
        }
      )
    else
      definition;

  within =
    name: definitions:
    concatLists (
      map (
        definition:
        let
          found = opened definition;
        in
        if isAttrs found.value && found.value ? ${name} then
          [ (found // { value = found.value.${name}; }) ]
        else
          [ ]
      ) definitions
    );

  holding =
    definitions:
    filter (definition: builtins.all (condition: condition) definition.conditions) (
      map opened definitions
    );

  fail = option: why: throw "${option}: ${why}";

  merge =
    path: node: definitions:
    let
      held = holding definitions;
      forced = filter (definition: definition.forced) held;
      counted = if forced == [ ] then held else forced;
      values = map (definition: definition.value) counted;
      value = head values;
      merged =
        if length values == 1 then
          value
        else if builtins.all isList values then
          concatLists values
        else if builtins.all isAttrs values && builtins.all (value: !(value ? outPath)) values then
          deep path values
        else if node.type == "lines" then
          concatStringsSep "\n" values
        else if builtins.all (other: other == value) values then
          value
        else
          fail path "is defined differently in ${
            concatStringsSep ", " (map (definition: definition.file) counted)
          }";
    in
    if values == [ ] then
      node.default or (fail path "is read, but not defined, and the table has no default")
    else if table.holds node.type merged then
      merged
    else
      fail path "a value of ${
        head (map (definition: definition.file) counted)
      } is not of type `${node.type}` (${node.source})";

  # Free-form settings: the same rules for every key.
  deep =
    path: values:
    builtins.zipAttrsWith (
      name: values:
      merge "${path}.${name}"
        {
          type = "anything";
          source = "free-form";
        }
        (
          map (value: {
            inherit value;
            file = "several modules";
            conditions = [ ];
            forced = false;
          }) values
        )
    ) values;

  # The configuration below one branch, lazily.
  configured =
    path: node: definitions:
    let
      children = node.children or { };
      wildcard = children."<name>" or null;
      element = children."*" or null;
      # Only what is surely there, so that names can be asked for without conditions.
      named = attrNames (foldl' (names: definition: names // namesOf definition) { } definitions);
      namesOf =
        definition:
        let
          found = opened definition;
        in
        if isAttrs found.value then mapAttrs (_: _: null) found.value else { };
      child =
        name: configured (path ++ [ name ]) (children.${name} or wildcard) (within name definitions);
      fixed = filter (name: name != "<name>" && name != "*") (attrNames children);
      label = concatStringsSep "." path;
    in
    if node ? type then
      fromDefault path (merge label node definitions)
    else if element != null then
      concatLists (
        map (
          definition:
          if isList definition.value then
            genList (
              index:
              configured (path ++ [ (toString index) ]) element [
                (definition // { value = elemAt definition.value index; })
              ]
            ) (length definition.value)
          else
            fail label "is not a list"
        ) (holding definitions)
      )
    else
      lib.listToAttrs (
        map (name: lib.nameValuePair name (child name)) (
          fixed ++ (if wildcard == null then [ ] else filter (name: !(builtins.elem name fixed)) named)
        )
      );

  # Defaults of the table that stand for more than themselves.
  fromDefault =
    path: value:
    if isAttrs value && attrNames value == [ "package" ] then
      pkgs.${value.package}
    else if isAttrs value && attrNames value == [ "kernel" ] then
      { kernel = pkgs.${value.kernel.package}; }
    else if isAttrs value && attrNames value == [ "perName" ] then
      value.perName + elemAt path (length path - 2)
    else if isAttrs value && attrNames value == [ "secrets" ] then
      value.secrets
    else
      value;

  config = configured [ ] tree definitions // {
    # There is a placeholder for each secret, and for nothing else.
    sops = (configured [ "sops" ] tree.children.sops (within "sops" definitions)) // {
      placeholder = mapAttrs (name: _: "<SOPS:${name}:PLACEHOLDER>") config.sops.secrets;
    };
  };

  # Every definition that no option takes, and every option that takes one.
  visit =
    path: node: definitions:
    let
      held = holding definitions;
      label = concatStringsSep "." path;
      children = node.children or { };
      into =
        name:
        if children ? ${name} || children ? "<name>" then
          visit (path ++ [ name ]) (children.${name} or children."<name>") (within name held)
        else
          [
            {
              error = "${label}${
                if path == [ ] then "" else "."
              }${name}: there is no such option (${(head (within name held)).file})";
            }
          ];
      names = attrNames (foldl' (names: definition: names // definition.value) { } held);
    in
    if held == [ ] then
      [ ]
    else if node ? type then
      [
        {
          inherit (node) option;
          value = merge label node held;
        }
      ]
    else if children ? "*" then
      concatLists (
        concatLists (
          map (
            definition:
            if isList definition.value then
              genList (
                index:
                visit (path ++ [ (toString index) ]) children."*" [
                  (definition // { value = elemAt definition.value index; })
                ]
              ) (length definition.value)
            else
              [ [ { error = "${label}: is not a list (${definition.file})"; } ] ]
          ) held
        )
      )
    else if builtins.all (definition: isAttrs definition.value) held then
      concatLists (map into names)
    else
      [ { error = "${label}: takes options, and is given a value (${(head held).file})"; } ];

  visited = visit [ ] tree definitions;
in
{
  inherit config;
  errors = concatLists (map (found: if found ? error then [ found.error ] else [ ]) visited);
  set = filter (found: found ? option) visited;
}
