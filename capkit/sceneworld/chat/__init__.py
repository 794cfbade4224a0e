"""What SceneWorld's chat models answer: a file a kind of question, told by the sections of its prompt.

To have them answer another bundled prompt, add a file with a function from the texts by section to an Answer, and list
it under the names of its sections in `capkit/sceneworld/llm.py`.
"""
