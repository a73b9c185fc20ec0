"""The viewer: a Streamlit page over a results folder. It reads and draws; it computes nothing the library could."""
