"""What is around the tabs: header, footer, help, palette, and the snapshot they all show."""
