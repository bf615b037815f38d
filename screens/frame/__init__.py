"""The frame around the tabs: header, footer, help, palette, and the shared snapshot."""
