"""The application: the `swiftsight` command. The only place that knows files, devices, screens and configs."""
