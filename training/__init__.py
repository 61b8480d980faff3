"""How the demo model is made: art, scenes, captions, and the stages that train on them."""
