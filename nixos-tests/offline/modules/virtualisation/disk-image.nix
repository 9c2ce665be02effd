# Stands for NixOS's file of this name, whose options are in the table.
{ }
