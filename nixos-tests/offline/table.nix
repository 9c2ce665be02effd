# Reads options.tsv: a tree of options, whose leaves have a type, and the parser and checker of these types.
let
  inherit (builtins)
    all
    attrNames
    elemAt
    filter
    foldl'
    isList
    isString
    length
    split
    stringLength
    substring
    ;
  lines = filter (line: isString line && line != "" && substring 0 1 line != "#") (
    split "\n" (builtins.readFile ./options.tsv)
  );
  columns = line: filter isString (split "\t" line);

  # a.b."c.d".<name> into its parts.
  path =
    option:
    let
      parts = filter (part: isList part || part != "") (split ''"([^"]*)"|\.'' option);
    in
    filter (part: part != null) (map (part: if isList part then elemAt part 0 else part) parts);

  insert =
    tree: parts: leaf:
    if parts == [ ] then
      tree // leaf
    else
      let
        name = builtins.head parts;
      in
      tree
      // {
        children = (tree.children or { }) // {
          ${name} = insert (tree.children.${name} or { }) (builtins.tail parts) leaf;
        };
      };

  row =
    line:
    let
      cells = columns line;
      option = elemAt cells 0;
    in
    {
      inherit option;
      parts = path option;
      type = elemAt cells 1;
      source = elemAt cells 2;
      default = if length cells > 3 then { value = builtins.fromJSON (elemAt cells 3); } else { };
    };
in
rec {
  rows = map row lines;

  tree = without (_: false);

  # The tree of all options but these.
  without =
    left:
    foldl' (
      tree: row:
      insert tree row.parts (
        {
          inherit (row) option type source;
        }
        // (if row.default == { } then { } else { default = row.default.value; })
      )
    ) { } (filter (row: !(left row)) rows);

  # `nullOr listOf str`, `"raw" | "qcow2"`, `attrsOf (bool | int)`: words before a type, and alternatives between bars.
  holds =
    type: value:
    let
      grouped = builtins.match "(nullOr|listOf|attrsOf) \\(([^()]*)\\)" type;
      single = builtins.match "(nullOr|listOf|attrsOf) ([^|]*)" type;
      word = if grouped != null then grouped else single;
      rest = holds (elemAt word 1);
      alternatives = filter isString (split " \\| " type);
      literal = builtins.match "\"([^\"|]*)\"" type;
    in
    if word != null then
      {
        nullOr = value == null || rest value;
        listOf = isList value && all rest value;
        attrsOf = builtins.isAttrs value && all (name: rest value.${name}) (attrNames value);
      }
      .${elemAt word 0}
    else if length alternatives > 1 then
      builtins.any (alternative: holds alternative value) alternatives
    else if literal != null then
      value == elemAt literal 0
    else
      atoms.${type} value;

  atoms = {
    bool = builtins.isBool;
    int = builtins.isInt;
    port = value: builtins.isInt value && value >= 0 && value < 65536;
    str = value: isString value || value ? outPath;
    lines = isString;
    path =
      value:
      builtins.isPath value
      || (isString value && stringLength value > 0 && substring 0 1 value == "/")
      || value ? outPath;
    package = value: builtins.isAttrs value && value.type or "" == "derivation";
    attrs = builtins.isAttrs;
    anything = _: true;
  };
}
