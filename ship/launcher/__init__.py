"""The GPU launcher that bundles carry: dispatch entries, their C++ table, the C++ sources."""
