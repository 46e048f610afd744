"""What lies around a net in `demo`: frames read ahead, answers drawn, windows, videos and logs written."""
